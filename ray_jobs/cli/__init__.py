"""What every command shares: its command line, finding the run it names, its console, its errors."""
