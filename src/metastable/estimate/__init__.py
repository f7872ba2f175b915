"""From arrays to estimates: a value with its error. Host code in float64, whatever the precision of the run."""
