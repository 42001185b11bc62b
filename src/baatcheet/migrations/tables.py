"""Importing this declares every table, so that the models can be compared with what the migrations make."""

# ruff: noqa: F401

import baatcheet.analytics.models
import baatcheet.attachments.models
import baatcheet.audio.models
import baatcheet.auth.models
import baatcheet.budgets.models
import baatcheet.chat.models
import baatcheet.console.models
import baatcheet.context.models
import baatcheet.conversations.models
import baatcheet.events.models
import baatcheet.exports.models
import baatcheet.jobs.models
import baatcheet.keys.models
import baatcheet.notifications.models
import baatcheet.platform.signed_links
import baatcheet.projects.models
import baatcheet.providers.routing.models
import baatcheet.retention.models
import baatcheet.search.models
import baatcheet.webhooks.models
from baatcheet.platform.database import Base

metadata = Base.metadata
