from effattack.counting.outside import outside as outside
from effattack.counting.tallies import tally as tally
from effattack.results.evaluation import Evaluation as Evaluation
from effattack.results.score import Score as Score
from effattack.runs.evaluate import evaluate as evaluate
from effattack.victim import Audit as Audit
from effattack.victim import Gate as Gate
from effattack.victim import Opaque as Opaque
from effattack.victim import Trace as Trace
from effattack.victim import Victim as Victim
from effattack.victim import audit as audit
from effattack.victim.hooked import Decision as Decision
from effattack.victim.hooked import Hooked as Hooked

__version__: str
