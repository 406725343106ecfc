"""HorizontalPodAutoscalers: as many Pods as what they use asks for."""
