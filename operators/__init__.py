"""Airflow's side: Ray jobs over Ray's Jobs REST API, as hook, trigger, operator and links. Needs no Ray installed."""
