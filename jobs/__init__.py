"""Background jobs for async Python web apps, with the request's context and no other server to run."""
