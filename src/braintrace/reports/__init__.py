"""What the compiler states about a model, for people and for programs: the same for every front
end.
"""

from ._diagnostics import CompilationRecord as CompilationRecord
from ._diagnostics import DiagnosticKind as DiagnosticKind
from ._diagnostics import DiagnosticLevel as DiagnosticLevel
from ._diagnostics import Path as Path
from ._diagnostics import records as records
from ._named import NamedGraph as NamedGraph
from ._report import CompilationReport as CompilationReport
