"""What is on the screen of ``gsd view``, predicted while somebody looks, and jobs begun there."""
