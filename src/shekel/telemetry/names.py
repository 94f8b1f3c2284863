"""Every attribute, event and metric name that Shekel uses: each stands here once.

The `gen_ai.*`, `server.*` and `error.*` names are those of the OpenTelemetry semantic conventions for generative AI
(development status); they are written out because the conventions' Python module is incubating and may drop names.
`gen_ai.usage.cost.*` is the convention proposed for cost. What Shekel adds is under `shekel.*`.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "shekel"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"

# The call
OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
SYSTEM: Final = "gen_ai.system"
"""What `gen_ai.provider.name` was called before version 1.37 of the conventions."""
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
EXCEPTION: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
HTTP_STATUS: Final = ("http.response.status_code", "http.status_code")
HTTP_RESEND_COUNT: Final = "http.request.resend_count"

# The request
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
REQUEST_STREAM: Final = "gen_ai.request.stream"
OUTPUT_TYPE: Final = "gen_ai.output.type"
OPENAI_REQUEST_SERVICE_TIER: Final = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"

# The answer
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"

# A run of a tool, and the other spans that calls run inside
EXECUTE_TOOL: Final = "execute_tool"
INVOKE_AGENT: Final = "invoke_agent"
INVOKE_WORKFLOW: Final = "invoke_workflow"
TOOL_NAME: Final = "gen_ai.tool.name"
AGENT_NAME: Final = "gen_ai.agent.name"
WORKFLOW_NAME: Final = "gen_ai.workflow.name"

# What it consumed
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_CREATION: Final = "gen_ai.usage.cache_creation.input_tokens"
USAGE_CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"
"""What `…cache_creation.input_tokens` is called in the conventions' own repository."""
USAGE_REASONING: Final = "gen_ai.usage.reasoning.output_tokens"
USAGE_INPUT_AUDIO: Final = "gen_ai.usage.audio.input_tokens"
USAGE_INPUT_IMAGE: Final = "gen_ai.usage.image.input_tokens"
USAGE_OUTPUT_AUDIO: Final = "gen_ai.usage.audio.output_tokens"
USAGE_OUTPUT_IMAGE: Final = "gen_ai.usage.image.output_tokens"
USAGE_CACHE_READ_AUDIO: Final = "gen_ai.usage.audio.cache_read.input_tokens"
USAGE_PROMPT_TOKENS: Final = "gen_ai.usage.prompt_tokens"
USAGE_COMPLETION_TOKENS: Final = "gen_ai.usage.completion_tokens"
COST_AMOUNT: Final = "gen_ai.usage.cost.amount"
COST_CURRENCY: Final = "gen_ai.usage.cost.currency"
COST_SOURCE: Final = "gen_ai.usage.cost.source"

# Who pays
USER_ID: Final = "user.id"
SESSION_ID: Final = "session.id"
TENANT_ID: Final = "tenant.id"

# Shekel's own, on spans
COST_ESTIMATED: Final = "shekel.cost.estimated"
COST_LOW: Final = "shekel.cost.low"
COST_COMMITTED: Final = "shekel.cost.committed"
PENDING: Final = "shekel.pending"
OUTCOME: Final = "shekel.outcome"
UNPRICED: Final = "shekel.unpriced"
ATTEMPTS: Final = "shekel.attempts"
DECISION: Final = "shekel.decision"
DECISION_REASON: Final = "shekel.decision.reason"
FALLBACK_FROM: Final = "shekel.fallback.from"
BUDGET_NAME: Final = "shekel.budget.name"
BUDGET_SCOPE: Final = "shekel.budget.scope"
BUDGET_LIMIT_USD: Final = "shekel.budget.limit_usd"
BUDGET_SPENT_USD: Final = "shekel.budget.spent_usd"
BUDGET_REMAINING_USD: Final = "shekel.budget.remaining_usd"
BUDGET_UNIT: Final = "shekel.budget.unit"
BUDGET_LIMIT: Final = "shekel.budget.limit"
BUDGET_USED: Final = "shekel.budget.used"
BUDGET_PART: Final = "shekel.budget.part"
BUDGET_SHADOWS: Final = "shekel.budget.shadows"
ALLOWANCE_AMOUNT: Final = "shekel.allowance.amount"
ALLOWANCE_BY: Final = "shekel.allowance.by"
ALLOWANCE_WHY: Final = "shekel.allowance.why"

# Span events
EVENT_WARNING: Final = "shekel.budget.warning"
EVENT_ALLOWANCE: Final = "shekel.budget.allowance"
EVENT_FALLBACK: Final = "shekel.budget.fallback"
EVENT_REFUSAL: Final = "shekel.budget.refusal"
EVENT_CUT: Final = "shekel.budget.cut"

# Log records
EVENT_DECISION: Final = "shekel.budget.decision"

# Metrics of the conventions
METRIC_TOKEN_USAGE: Final = "gen_ai.client.token.usage"
METRIC_DURATION: Final = "gen_ai.client.operation.duration"
METRIC_TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
METRIC_COST: Final = "gen_ai.client.operation.cost"
TOKEN_TYPE: Final = "gen_ai.token.type"

# Shekel's own metrics
METRIC_SPEND: Final = "shekel.cost"
METRIC_TOKENS: Final = "shekel.tokens"
METRIC_CALLS: Final = "shekel.calls"
METRIC_DECISIONS: Final = "shekel.budget.decisions"
METRIC_BUDGET_SPENT: Final = "shekel.budget.spent"
METRIC_BUDGET_LIMIT: Final = "shekel.budget.limit"
METRIC_BUDGET_HELD: Final = "shekel.budget.held"
METRIC_OVERRUN: Final = "shekel.budget.overrun"
METRIC_BOUND_VIOLATIONS: Final = "shekel.budget.bound_violations"
METRIC_CACHE_SAVINGS: Final = "shekel.cache.savings"
METRIC_PRICES_AGE: Final = "shekel.prices.age"
METRIC_LEDGER_AVAILABLE: Final = "shekel.ledger.available"
METRIC_ERRORS: Final = "shekel.errors"
METRIC_UNPRICED: Final = "shekel.unpriced"
METRIC_BAGGAGE_DROPPED: Final = "shekel.baggage.dropped"
METRIC_SCOPE_UNRESOLVED: Final = "shekel.scope.unresolved"
REASON: Final = "shekel.reason"
LEDGER_KIND: Final = "shekel.ledger.kind"
OVERRUN_CAUSE: Final = "shekel.overrun.cause"
FAULT: Final = "shekel.fault"

# Instrumentation scopes whose spans stand for a call that a door of ours also sees
ANTHROPIC_SCOPE: Final = "com.anthropic.sdk.python"

# What other vocabularies call the spans that calls run inside
EXECUTE_TASK: Final = "execute_task"
OPENINFERENCE_KIND: Final = "openinference.span.kind"
OPENINFERENCE_AGENTS: Final = "openinference.instrumentation.openai_agents"
OPENINFERENCE_LANGCHAIN: Final = "openinference.instrumentation.langchain"
OPENINFERENCE_AGENT: Final = "agent.name"
OPENINFERENCE_TOOL: Final = "tool.name"
GRAPH_NODE: Final = "graph.node.id"
TRACELOOP_KIND: Final = "traceloop.span.kind"
TRACELOOP_ENTITY: Final = "traceloop.entity.name"
TRACELOOP_WORKFLOW: Final = "traceloop.workflow.name"

USD: Final = "USD"
UNIT_USD: Final = "{USD}"
UNIT_TOKEN: Final = "{token}"
UNIT_CALL: Final = "{call}"
UNIT_SECOND: Final = "s"

# Bucket boundaries: the conventions' own for time and tokens; decades and their thirds for cost, 10⁻⁵ to 10 USD.
TOKEN_BUCKETS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
DURATION_BUCKETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
COST_BUCKETS: Final = (
    0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005,
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
