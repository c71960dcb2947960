"""Tests of the messages: no I/O."""
