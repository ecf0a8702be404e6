"""Files by URL: reading parts of objects that lie in a bucket or on a server."""
