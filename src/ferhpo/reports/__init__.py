"""Reports: panels of figures and tables, and the page that shows them.

report.py  the verb `report`: gather panels, write the page
live.py    figures of a sweep that is running
panel.py   Panel
page.py    panels to one HTML file (page.css)
style.py   colors and sizes of every figure
sweep/     panels of a sweep
trial/     panels of a trial's scores
network/   panels that look inside a network
"""
