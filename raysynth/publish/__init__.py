"""Images, adapters and cards of a finished run as other tools read them."""
