"""Ray: joining or starting it, what it has, what a run leaves on this machine."""
