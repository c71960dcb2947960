"""Configuration: the settings, the checks on them, and the directory of jobcenters and their systems.

The only package that reads the environment. Imports no other package of the project.
"""
