"""Write the dashboards, the rules and the alerts: ``python -m config.generate``, or ``make dashboards``."""
