"""References and controls: methods that raysynth is compared with."""
