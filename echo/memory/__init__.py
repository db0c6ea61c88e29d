"""Echo-Forcing's four memories, one pure function for each equation."""
