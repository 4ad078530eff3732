-- Whether a credential is enabled is said in one place.

-- A copy among the settings, from the time when it was set there, would come back with the next change of a setting.
UPDATE credential SET settings = settings - 'enabled' WHERE settings ? 'enabled';
