"""One slide or many, cut between processes, and their parts joined."""
