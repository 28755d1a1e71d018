"""What the terminal shows.

console.py      the console, and which commands and links it prints
grid.py         tables that fit the width of the terminal
leaderboard.py  the trials of a sweep
progress.py     a running sweep: its steps, running trials, ends of trials, the link to MLflow
running.py      the table of the trials that run now
"""
