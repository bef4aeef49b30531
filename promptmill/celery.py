"""The app that Celery's own tools find by name: `celery -A promptmill flower`,
`celery -A promptmill control drain`. Reads the settings when it is imported; promptmill's
own processes never import it."""

from promptmill.settings import read
from promptmill.wakeups import celery_app

app = celery_app(read())
