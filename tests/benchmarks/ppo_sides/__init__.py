"""The two sides of the benchmark `ppo`, a process each: our PPO and that of TRL 1.12.0."""
