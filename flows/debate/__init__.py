"""Whether debate helps a judge: who debates, who judges, and who knows the truth; the protocol is ``tasks.results.debate``."""
