"""Replay of a job trace under several policies."""
