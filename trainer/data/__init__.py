"""What training and evaluation read: files and the log, checked at the edge and given on as columns."""
