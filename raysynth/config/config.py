"""Every knob of raysynth, once: typed, validated, documented, with its unit."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    Field,
    model_validator,
)

from raysynth.audit.settings import AuditConfig
from raysynth.cluster.settings import ResourcesConfig
from raysynth.clustering.settings import ClusteringConfig
from raysynth.config.benchmark import BenchmarkConfig
from raysynth.config.ground import RunConfig
from raysynth.datasets.settings import DatasetConfig
from raysynth.fidelity.settings import FidelityConfig
from raysynth.finetune.settings import FinetuneConfig
from raysynth.generators.generator import GENERATORS, check_generator
from raysynth.generators.recipe import AUTO
from raysynth.grouping.settings import FINDING, RESOLVING, GroupingConfig
from raysynth.groups.settings import PromptConfig
from raysynth.knobs import digest_of, knob
from raysynth.models.settings import BaseConfigSection
from raysynth.networks.settings import ClassifierConfig
from raysynth.pretraining.settings import PretrainingConfig
from raysynth.references.settings import CONTROLS, ReferencesConfig
from raysynth.registry import chosen_part, named_part
from raysynth.report.settings import ReportConfig
from raysynth.search.settings import SearchConfig
from raysynth.selection.settings import SelectionConfig
from raysynth.synthesis.settings import SynthesisConfig
from raysynth.trackers.tracker import TRACKERS


class Config(RunConfig):
    """One run: top-level keys and one section per room."""

    generator: named_part(GENERATORS, AUTO) = Field(  # type: ignore[valid-type]
        "clustered_dreambooth",
        description="vanilla: prompt only; lora, dreambooth: LoRA or full weights per group; "
        "clustered_dreambooth: a model per cluster (paper); shared: a model for all groups; edit: "
        "real images edited by it; auto: the best of `candidates`, for each group (ours).",
    )
    candidates: Annotated[
        tuple[named_part(GENERATORS), ...],  # type: ignore[valid-type]
        Field(min_length=1),
    ] = Field(
        ("vanilla", "clustered_dreambooth", "shared", "edit"),
        description="auto: generators that are tried.",
    )
    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    base: BaseConfigSection = Field(default_factory=BaseConfigSection)
    prompts: PromptConfig = Field(default_factory=PromptConfig)
    clustering: ClusteringConfig = Field(default_factory=ClusteringConfig)
    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    fidelity: FidelityConfig = Field(default_factory=FidelityConfig)
    classifier: ClassifierConfig = Field(default_factory=ClassifierConfig)
    references: ReferencesConfig = Field(default_factory=ReferencesConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig)
    grouping: GroupingConfig = Field(default_factory=GroupingConfig)
    audit: AuditConfig = Field(default_factory=AuditConfig)
    benchmark: BenchmarkConfig = Field(default_factory=BenchmarkConfig)
    pretraining: PretrainingConfig = Field(default_factory=PretrainingConfig)
    trackers: tuple[chosen_part(TRACKERS), ...] = knob(  # type: ignore[valid-type]
        ("tensorboard",),
        "Where runs tell what their stages found: names, or mappings of `name` and a tracker's own "
        "knobs.",
        width=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _find_attributes(cls, values: Any) -> Any:
        """Attributes that are not known are found, by a default where no method is named."""
        if not isinstance(values, dict):
            return values
        dataset, grouping = values.get("dataset"), values.get("grouping", {})
        unknown = isinstance(dataset, dict) and dataset.get("attributes") == "unknown"
        if not unknown or not isinstance(grouping, dict) or "method" in grouping:
            return values
        return {**values, "grouping": {**grouping, "method": FINDING}}

    @model_validator(mode="after")
    def _check(self) -> Config:
        if not self.dataset.knows_attributes and self.grouping.is_given:
            unknown = self.dataset.attributes == "unknown"
            hidden = f"hidden_attributes: {self.dataset.hidden_attributes:g}"
            raise ValueError(
                f"dataset.{'attributes: unknown' if unknown else hidden}, but "
                "grouping.method=given takes those that the data set gives; expected a method "
                "that finds the others. "
                f"Fix: grouping.method={FINDING if unknown else RESOLVING}"
            )
        if self.search.steps[1] == 0 and not self.classifier.starts_pretrained:
            raise ValueError("search.steps: [0, 0] needs a pretrained classifier.backbone")
        if self.search.steps[1] == 0 and self.classifier.schedule != "head":
            raise ValueError(
                f"search.steps: [0, 0], but classifier.schedule={self.classifier.schedule} trains "
                "more than a head. Fix: search.steps=[50, 400], or classifier.schedule=head"
            )
        blind = self.resources.gpus_per_worker > 0 and not self.search.gpus_per_trial
        if blind and self.classifier.backbone != "small":
            raise ValueError(
                "search.gpus_per_trial: 0, so trials would train "
                f"{self.classifier.backbone} without a GPU, though workers have one. Fix: "
                "search.gpus_per_trial=1"
            )
        for control in self.references.controls:
            CONTROLS[control].check(self.base, self.dataset)
        self.classifier.check_share("search.head_real_shares", min(self.search.head_real_shares))
        self.classifier.check_joint("search.real_shares", list(self.search.real_shares))
        if self.generator == AUTO and self.finetune.overrides:
            raise ValueError(
                "finetune.overrides: names adapters of one generator, but generator=auto trains "
                f"those of {', '.join(self.candidates)}. Fix: one of these, or no overrides"
            )
        for name in self.candidates if self.generator == AUTO else (self.generator,):
            check_generator(name, self.prompts, self.finetune, self.synthesis.rebalance.on)
        return self

    @model_validator(mode="after")
    def _check_captions(self) -> Config:
        """What knows groups by one prompt each has no use for images' own."""
        if self.dataset.captions is None:
            return self
        named = ", ".join(term.name for term in self.finetune.terms)
        audit = "" if self.audit.is_off else self.audit.method.name
        for key, got, off in (("finetune.terms", named, "[]"), ("audit.method", audit, "none")):
            if got:
                raise ValueError(
                    f"{key}: {got} compares what a model says under the groups' prompts; got "
                    f"dataset.captions={self.dataset.captions}, by which every image has its own; "
                    f"expected one of the two. Fix: {key}={off}, or leave dataset.captions out"
                )
        return self

    @property
    def sources(self) -> dict[str, str]:
        """The data set's folder, where its files make it another one."""
        path = self.dataset.path if self.dataset.has_files else None
        return {} if path is None else {"dataset.path": path}

    def for_references(self) -> Config:
        """This configuration with the start that references have."""
        classifier = self.references.network(self.classifier)
        return self.model_copy(update={"classifier": classifier})

    def digest(self) -> str:
        """Hex digest of everything that can change a result (not where it runs)."""
        leave = {"storage_path", "resources", "name", "benchmark", "trackers", "report"}
        leave.add("pretraining")  # a run takes what it made as `base`
        if self.grouping.is_given:  # as before there was another way
            leave.add("grouping")
        if self.audit.is_off:
            leave.add("audit")
        return digest_of(self.model_dump(mode="json", exclude=leave))
