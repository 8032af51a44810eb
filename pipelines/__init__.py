"""What a user runs: the stage table, the Beam job, the importers, the command line."""
