"""How long a run will take here: rates of this machine, measured once, and the tokens that every stage reads and writes."""
