"""Bearer tokens of OpenID providers (Clerk, Auth0, Keycloak …), checked here by the keys that each publishes."""
