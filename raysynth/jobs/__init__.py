"""Looking at a run from outside, and starting, stopping, going on with it on a cluster."""
