"""What the dashboards are made of: queries, panels, and one file for each dashboard."""
