"""Prompt sets of other people, and tables of prompts by their columns."""
