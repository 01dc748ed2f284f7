"""Before the examples of docs/board.md: Django is configured, as a project of yours does it."""

import django.conf

django.conf.settings.configure(
    SECRET_KEY="of an example",
    ALLOWED_HOSTS=["*"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
)
