"""What the behaviour tests share: operations and their comparison, the plain model, shell scripts, worker processes."""
