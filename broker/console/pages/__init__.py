"""The handlers of the console, one file for each part of it."""
