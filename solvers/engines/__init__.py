"""One engine per regime; each improves an incumbent or proves a bound."""
