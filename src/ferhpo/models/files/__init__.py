"""Files of trained networks and estimators, read in bounded memory."""
