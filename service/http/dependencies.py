"""What handlers are given: the core, or the operator's view of the instance."""

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from service.core.core import Core
from service.ops.operations import Operations

ProvidedCore = NamedDependency[SkipValidation[Core]]
ProvidedOperations = NamedDependency[SkipValidation[Operations]]
