"""Released packages of serving systems as test subjects: fetched, unpacked, their Python parts driven without the rest."""
