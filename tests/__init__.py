from tests import typechecker as typechecker  # pytest looks it up as an attribute
