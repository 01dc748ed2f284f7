"""The worker: fetches jobs, runs their processors, and writes how they ended."""
