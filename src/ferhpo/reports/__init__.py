"""Reports: panels with figures and tables, and the HTML page that shows them.

report.py  the verb `report`: collect the panels, write the page
live.py    figures of a sweep that is running
panel.py   Panel
page.py    render panels as one HTML file (page.css)
style.py   colors and sizes of every figure
sweep/     panels of a sweep
trial/     panels of a trial
network/   panels that look inside a network
"""

import logging

from ferhpo.current_folder import ignore_matplotlibrc

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home folder that cannot be written
ignore_matplotlibrc()  # again: a program may have gone to another folder
