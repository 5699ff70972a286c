"""From a command line to checked jobs, and what a config names, built."""
