"""Panels about the search itself: was it long enough, wide enough, and could trials have been stopped earlier?"""
