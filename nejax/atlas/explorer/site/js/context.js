// What every page knows: the atlas's description, as `useAtlas()`.

import { createContext } from "../vendor/preact.js";
import { useContext } from "../vendor/hooks.js";

export const AtlasContext = createContext(null);

/** The shard `atlas.json`. */
export const useAtlas = () => useContext(AtlasContext);
