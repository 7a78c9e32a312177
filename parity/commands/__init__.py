"""The command line of `parity`: one file a command."""
