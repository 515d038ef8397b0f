"""What observing a router costs and withstands: ``make observe``."""
