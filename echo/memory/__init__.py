"""Echo-Forcing's memories: one pure function for each equation, their settings, and their state on the device."""
