"""Dashboards for Grafana, made by code: their JSON, a check of every query, and pictures of their panels."""
