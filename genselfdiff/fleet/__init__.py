"""Work shared out to the workers of a Dask cluster, which may come and go."""
