"""The web console: pages made here, for people, over the services that the API speaks to."""
