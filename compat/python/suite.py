"""The suite of the Python client (confluent-kafka): all its cases against one server."""

import cases_admin  # noqa: F401
import cases_consume  # noqa: F401
import cases_groups  # noqa: F401
import cases_produce  # noqa: F401
import cases_restart  # noqa: F401
import harness

harness.main()
