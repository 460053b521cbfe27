"""Kubernetes and Kueue."""
